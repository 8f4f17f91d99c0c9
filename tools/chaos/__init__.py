"""Failure drills: a real daemon, treated badly, and what it must not do then."""
