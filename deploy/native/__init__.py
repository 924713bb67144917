"""The whole stack as local processes: private servers, the services, a runner, and the same for tests."""
