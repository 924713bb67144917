"""Quotes, bars, search and live ticks of stocks, from embedded history and upstream providers."""
