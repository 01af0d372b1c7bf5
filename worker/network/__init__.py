"""The node's network: a bridge for local containers, their addresses, and the ports they publish.

`plan.py` and `ipam.py` decide (pure): the ruleset and the addresses that a set of attachments needs. `links.py`,
`namespaces.py` and `nft.py` are the only doors to the kernel. `node_network.py` is what the agent uses: it converges
the kernel to what is wanted, so that a restarted worker continues, and removes what is left over. Overlay networks,
names and the routing mesh will be further planners over the same doors.
"""
