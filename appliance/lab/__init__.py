"""The NAT laboratory: network namespaces, nftables routers, a WAN with a delay."""
