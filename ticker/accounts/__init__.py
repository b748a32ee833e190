"""Broker accounts: who is there, with which secrets, and how they log in."""
