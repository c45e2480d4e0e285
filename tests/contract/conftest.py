"""The Kafka implementations need a real broker; the others run without."""

from __future__ import annotations

from kafka_fixtures import admin, broker, connection, group_id, make_topic

__all__ = ["admin", "broker", "connection", "group_id", "make_topic"]
