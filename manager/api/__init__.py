"""Thin servicers (who is it, decode, call, encode) and forwarding to the leader. Decisions do not belong here."""
