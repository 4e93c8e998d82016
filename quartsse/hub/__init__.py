"""The hub: a log of events, channels that view it, subscriptions that read it. Pure and synchronous."""
