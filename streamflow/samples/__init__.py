"""Sample events of any contract, made from its core schema: plain ones for ``streamflow produce``, and ones
at the boundaries of each type.

A sample is made as a JSON document and decoded by the stream's own decoder before it is given out, so what
the generators here do not know of a contract (a validator of the user's own) costs tries, but gives no
invalid sample.

- `node`: what generates the values of one part of a contract, made by `shapes` from `scalars`, `texts` and
  `containers`;
- `factory`: `SampleFactory`, the samples of a stream;
- `simulation`: `simulated`, records for ``streamflow produce``, with mistakes among them.
"""
