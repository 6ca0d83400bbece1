"""What the dashboard serves over HTTP. ``app`` puts it together; each ``…_routes`` module holds one family of addresses."""
