"""Assignments, task controllers, reporter, journal, enrolment and certificate renewal."""
