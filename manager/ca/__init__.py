"""The cluster's certificate authority: root, issuance, tokens' secrets (pure, given key, now and serial).

Storing what is issued and deciding who may ask belong to `manager/api/ca.py`.
"""
