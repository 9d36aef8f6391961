"""The engine, which runs any plan as a journalled transaction and knows no product."""
