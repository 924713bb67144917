"""The whole stack as local processes: private servers, the services and a runner. Tests use it, too."""
