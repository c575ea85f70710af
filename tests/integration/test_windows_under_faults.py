"""The short form of `make windows`: whatever is killed, totals of windows are those that DuckDB computes of
the same events."""

from pathlib import Path

import pytest
from shop import play
from shop_rig import FIRST, ShopRig

from conftest import SettingsFactory
from services import BrokerService

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.mark.slow
def test_totals_are_those_of_duckdb(
    settings: SettingsFactory, broker: BrokerService, database_url: str, tmp_path: Path
) -> None:
    made = settings(DATABASE_URL=database_url, STREAMFLOW_STREAMS=",".join(FIRST))
    rig = ShopRig(made, broker, tmp_path)
    try:
        wrong = play(rig, seed=1, number=1_500, faults=("analytics", "broker", "loader"))
    finally:
        rig.stop()
    assert wrong == []
