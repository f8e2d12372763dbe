"""The schema: every table has `tenant_id`, first in its primary key; `migrations/` makes it so.

Content and record live here; progress lives in Temporal. Row-level security (see `migrations/versions`) lets a
transaction see the rows of the tenant it names, and fails a query in a transaction that names none.
"""

from holdfast.store.tables import record, runs, telling, tenants
from holdfast.store.tables.columns import metadata

#: Where the tables stand. Whoever takes `metadata` from here has them all in it.
PAGES = (tenants, runs, record, telling)

__all__ = ["PAGES", "metadata"]
