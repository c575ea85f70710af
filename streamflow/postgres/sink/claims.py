"""What becomes of records that claim to be replays, once the database has proved which are. Pure."""

from collections import Counter
from dataclasses import dataclass, field, replace

from streamflow.errors import ErrorCode
from streamflow.flow import Count, Output, Partition, Replayed
from streamflow.postgres.sink.copy import Row
from streamflow.records import Origin, Record, Rejection, position_of


@dataclass(slots=True, kw_only=True)
class Resolved:
    """An output without open claims."""

    output: Output
    replays: dict[str, list[Row]] = field(default_factory=dict)  # events, by table
    rejected: list[tuple[Record, Rejection]] = field(default_factory=list)
    origins: set[Partition] = field(default_factory=set)  # whose events the replays are

    def codes(self) -> Counter[ErrorCode]:
        """How many records were rejected here, by code; foreign dead letters are among them."""
        codes = Counter(rejection.code for _, rejection in self.rejected)
        codes[ErrorCode.FOREIGN_RECORD] += self.output.foreign.total()
        return +codes

    def foreign(self) -> Counter[str]:
        """How many records are not ours, by topic."""
        return self.output.foreign + Counter(
            position_of(record).topic
            for record, rejection in self.rejected
            if rejection.code is ErrorCode.FOREIGN_RECORD
        )


def positions_of(output: Output) -> set[Origin]:
    """The positions at which a replay would have sent what claims to be one."""
    return {claim.sent for rows in output.tables.values() for claim in rows.claims}


def resolve(output: Output, sent: dict[Origin, Replayed]) -> Resolved:
    """Turns each claim into a row or a rejection. `sent` says what the records at some of `positions_of`
    are; no replay has sent the others."""
    if not any(rows.claims for rows in output.tables.values()):
        return Resolved(output=output)
    resolved = Resolved(output=replace(output, tables=output.tables.copy()))
    for table, rows in output.tables.items():
        settled = replace(rows, rows=[*rows.rows], sources=[*rows.sources], claims=[])
        resolved.output.tables[table] = settled
        for claim in rows.claims:
            identity = sent.get(claim.sent)
            line = claim.otherwise if identity is None else claim.line(identity)
            if isinstance(line, Rejection):
                resolved.rejected.append((claim.record, line))
            elif identity is not None and rows.holds_events:
                row = Row(line, claim.record, identity.attempt)
                resolved.replays.setdefault(table, []).append(row)
                resolved.origins.add(identity.origin[:2])
            else:
                settled.add(line, claim.record)
    resolved.output.counts = _counts(output, resolved.rejected)
    return resolved


def _counts(output: Output, rejected: list[tuple[Record, Rejection]]) -> dict[Partition, Count]:
    counts = dict(output.counts)
    for record, _ in rejected:
        partition = position_of(record)[:2]
        known = counts.get(partition, Count(0, 0))
        counts[partition] = known._replace(rejected=known.rejected + 1)
    return counts
