"""What the benches are made of. benches/compare: ground, load, servers, peers, measure, scenarios, experiments, report,
chart. benches/slow-but-healthy: ground, slow (the rows), senders, moody (the next hops)."""
