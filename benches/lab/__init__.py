"""What the benches are made of. benches/compare: setup, load, servers, peers, measure, scenarios, experiments, report,
chart. benches/slow-but-healthy: setup, slow (the rows), senders, scripted_hop (the next hops)."""
