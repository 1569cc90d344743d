"""How the appliance finds relays and private peers, and says how it is found itself."""
