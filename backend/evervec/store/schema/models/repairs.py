"""What Evervec found wrong with its own objects in the database, and still has to make good."""

from datetime import datetime

from sqlalchemy import Text

from evervec.store.schema.columns import Model, column, filled_time


class TriggerRepair(Model, table=True):
    """A table whose triggers were found missing, changed or switched off: its rows still have to be compared."""

    __tablename__ = "trigger_repairs"

    table_name: str = column(Text, primary_key=True)
    reason: str = column(Text)
    found_at: datetime = filled_time()
