//! A device gateway: long-lived connections, presence, and commands that run once
