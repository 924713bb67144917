"""The API's own description: OpenAPI, AsyncAPI, the pages that show them, problem types and runbooks."""
