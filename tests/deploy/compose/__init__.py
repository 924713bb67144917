"""The real containers of compose.yaml; a package, so that their stack ends with the last of these tests."""
