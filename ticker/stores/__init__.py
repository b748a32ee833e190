"""What is kept in PostgreSQL: the connections, the tables and their migrations."""
