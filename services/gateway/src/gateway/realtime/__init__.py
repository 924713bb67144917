"""Everything that is pushed: WebSocket, SSE, chat rooms."""
