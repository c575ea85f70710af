"""What windows can compute of their events, besides counting them: each module has one family of aggregates,
with the state that a window keeps of it, its form in JSON and how such states merge. Pure."""
