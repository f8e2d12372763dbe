"""The shop's tools: plain typed functions over a small table of orders in SQLite.

Nothing of Holdfast has to be imported to write a tool. `tool` only says more about one: that it changes nothing.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from holdfast.domain.tools import tool

_SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (
  order_id INTEGER PRIMARY KEY, customer TEXT NOT NULL, item TEXT NOT NULL, total_usd TEXT NOT NULL,
  status TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS refunds (
  idempotency_key TEXT PRIMARY KEY, order_id INTEGER NOT NULL REFERENCES orders, reason TEXT NOT NULL
);
INSERT OR IGNORE INTO orders VALUES
  (1041, 'Ada', 'Desk lamp', '39.00', 'delivered'),
  (1042, 'Grace', 'Mechanical keyboard', '129.00', 'in transit, due tomorrow'),
  (1043, 'Alan', 'Notebook, pack of three', '12.50', 'being packed');
"""


@tool(effect="read")
def lookup_order(order_id: int) -> dict[str, str | int | bool]:
    """Look up an order: where it is, what it holds, what it cost, and whether it was refunded."""
    with _shop() as shop:
        order = shop.execute("SELECT * FROM orders WHERE order_id = ?", (order_id,)).fetchone()
        refunded = shop.execute("SELECT 1 FROM refunds WHERE order_id = ?", (order_id,)).fetchone()
    if order is None:
        raise LookupError(f"there is no order {order_id}")
    return {**order, "refunded": refunded is not None}


def refund_order(
    order_id: int, idempotency_key: str, reason: str = "requested by the customer"
) -> dict[str, str | int]:
    """Refund an order in full."""
    with _shop() as shop:
        order = shop.execute("SELECT * FROM orders WHERE order_id = ?", (order_id,)).fetchone()
        if order is None:
            raise LookupError(f"there is no order {order_id}")
        # The same key again changes nothing: whoever repeats this call refunds once.
        shop.execute("INSERT OR IGNORE INTO refunds VALUES (?, ?, ?)", (idempotency_key, order_id, reason))
    return {"order_id": order_id, "refunded_usd": order["total_usd"]}


@contextmanager
def _shop() -> Iterator[sqlite3.Connection]:
    shop = sqlite3.connect(os.environ.get("SHOP_DATABASE", "shop.sqlite"), timeout=10)
    shop.row_factory = _as_dict
    try:
        shop.executescript(_SCHEMA)
        with shop:
            yield shop
    finally:
        shop.close()


def _as_dict(cursor: sqlite3.Cursor, row: tuple[object, ...]) -> dict[str, object]:
    return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}
