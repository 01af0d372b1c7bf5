"""Pure: published ports today; subnets, VIPs and VNIs with overlay networks."""
