"""Backups that tasks ask for: their requests, which an agent outside the services carries out."""
