"""The public door: HTTP, WebSocket and SSE for everything that Tickwire does."""
