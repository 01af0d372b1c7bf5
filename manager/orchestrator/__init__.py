"""Pure: which tasks a service should gain, lose, restart or replace; the reaper."""
