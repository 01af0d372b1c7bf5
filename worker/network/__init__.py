"""The node's network: plan (pure: desired -> operations), netlink and nft edges."""
