//! What is told of clients that guess.

use super::*;
use crate::session::Identity;
use crate::session::commit::tests::services;

#[tokio::test]
async fn of_many_clients_that_guess_a_hundred_a_minute_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let (services, _accepted) = services(folder.path());
    let connector = services.current.load().config.receive_connectors[0].clone();
    let (address, bind) = ("192.0.2.1:40000".parse().unwrap(), "127.0.0.1:2525".parse().unwrap());
    let identity = Identity::default();
    let mut client = Client { id: "test".into(), address, bind, connector, tls: None, identity };
    // A hundred more than two minutes take: this one may end meanwhile.
    for number in 0..300_u32 {
        client.address.set_ip(std::net::Ipv4Addr::from_bits(0xc633_6400 + number).into());
        failed(&services, &client, Limit::Unchanged);
        failed(&services, &client, Limit::Begins);
    }
    let as_sums = |what: Kind| services.metrics.told_as_sums.with_label_values(&[what.as_str()]).get();
    assert!(as_sums(Kind::Guesser) >= 100, "{}", as_sums(Kind::Guesser));
    assert_eq!(as_sums(Kind::Authentication), 0, "they do not take the room of failures");
}
