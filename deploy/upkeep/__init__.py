"""Operations on an installation: rotation of secrets, backup, restore, upgrade check, support bundle."""
