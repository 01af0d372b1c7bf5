"""The cluster's certificate authority: root, issuance, tokens' secrets (pure, given key, now and serial)."""
