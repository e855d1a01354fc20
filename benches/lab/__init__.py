"""What benches/compare is made of: ground, load, servers, peers, measure, scenarios, experiments, report, chart."""
