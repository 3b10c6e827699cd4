//! What the mapper does with a gateway's answers, and with their absence.

use super::*;

fn mapper(delay: Duration, stop: &watch::Sender<bool>) -> PortMapper {
    let (socket, _driver) = Socket::bind(&["127.0.0.1:0".parse().unwrap()], 1444).unwrap();
    PortMapper {
        socket,
        gateways: Finder::DEFAULT_ROUTE,
        delay,
        hurry: Arc::new(Notify::new()),
        lifetime: LIFETIME,
        driver: mpsc::channel(1).0,
        network: watch::channel(0).1,
        stop: stop.subscribe(),
    }
}

#[tokio::test]
async fn whoever_wants_to_know_need_not_wait_for_the_delay() {
    let stop = watch::Sender::new(false);
    let delay = Duration::from_secs(3_600);
    // Before it waits, or while it does.
    for waits in [false, true] {
        let mut mapper = mapper(delay, &stop);
        let hurry = Arc::clone(&mapper.hurry);
        if !waits {
            hurry.notify_one();
        }
        let asked = async {
            tokio::task::yield_now().await;
            if waits {
                hurry.notify_one();
            }
        };
        let (woken, ()) = tokio::join!(mapper.first_wait(), asked);
        assert!(matches!(woken, Woken::Due));
    }
}

#[cfg(target_os = "linux")]
mod holding {
    use tokio::net::UdpSocket;

    use super::super::fake::{NO_RESOURCES, NOT_AUTHORIZED, SUCCESS, answer, gateway};
    use super::super::pcp::Pcp;
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(10);

    /// A port that should be renewed now.
    async fn due(socket: &UdpSocket, gateway: Gateway) -> (Place, Granted, Term) {
        let place = Place {
            gateway,
            port: 5000,
            lifetime: LIFETIME,
        };
        let (mapped, _) = tokio::join!(
            Pcp::map(gateway, place.port, LIFETIME),
            answer(socket, SUCCESS, 10)
        );
        let granted = Granted::Pcp(Box::new(mapped.unwrap()));
        let given = Instant::now().checked_sub(LIFETIME / 2).unwrap();
        (place, granted, Term::new(given, LIFETIME))
    }

    fn told(driver: &mut mpsc::Receiver<Input>) -> Vec<bool> {
        let held = |input| match input {
            Input::PortMapping(told) => matches!(told, GatewayPort::Held(_)),
            _ => unreachable!(),
        };
        std::iter::from_fn(|| driver.try_recv().ok())
            .map(held)
            .collect()
    }

    #[tokio::test]
    async fn a_port_whose_renewal_failed_stays_told_and_is_renewed_later() {
        let (socket, gateway) = gateway(4).await;
        let (place, granted, term) = due(&socket, gateway).await;
        let stop = watch::Sender::new(false);
        let mut mapper = mapper(Duration::ZERO, &stop);
        let (driver, mut inputs) = mpsc::channel(8);
        mapper.driver = driver;
        let mut announcements = Announcements::listen(Arc::clone(&mapper.socket));
        let ended = mapper.hold(place, granted, term, Requests::new(), &mut announcements);
        let gateway = async {
            let (_, first) = answer(&socket, NO_RESOURCES, 60).await;
            let (seconds, second) = answer(&socket, SUCCESS, 10).await;
            assert_eq!((seconds, &second), (10, &first));
            stop.send_replace(true);
            // And it is given back.
            let (seconds, third) = answer(&socket, SUCCESS, 0).await;
            assert_eq!((seconds, third), (0, first));
        };
        let (ended, ()) = tokio::join!(ended, gateway);
        assert!(matches!(ended, Ended::Stopped));
        assert_eq!(told(&mut inputs), [true]);
    }

    #[tokio::test]
    async fn a_port_that_the_gateway_refuses_is_not_held() {
        let (socket, gateway) = gateway(5).await;
        let (place, granted, term) = due(&socket, gateway).await;
        let stop = watch::Sender::new(false);
        let mut mapper = mapper(Duration::ZERO, &stop);
        let mut announcements = Announcements::listen(Arc::clone(&mapper.socket));
        let ended = mapper.hold(place, granted, term, Requests::new(), &mut announcements);
        let (ended, _) = tokio::join!(ended, answer(&socket, NOT_AUTHORIZED, 60));
        assert!(matches!(ended, Ended::Lost { was_good: false }));
    }
}

/// From the first question to the end.
#[cfg(target_os = "linux")]
mod running {
    use std::net::{Ipv4Addr, SocketAddr};

    use byway_core::discovery::{MappingProtocol, PortMapping};

    use super::super::fake::{self, SUCCESS, answer};
    use super::super::fake_igd::{Did, EXTERNAL, Igd, Leases};
    use super::*;

    const fn at(last: u8) -> Gateway {
        Gateway {
            addr: Ipv4Addr::new(127, 53, 51, last),
            local: Ipv4Addr::LOCALHOST,
        }
    }

    /// A mapper of that gateway's, and what it tells.
    fn running(
        gateways: Finder,
        stop: &watch::Sender<bool>,
    ) -> (PortMapper, mpsc::Receiver<Input>) {
        let mut mapper = mapper(Duration::ZERO, stop);
        let (driver, inputs) = mpsc::channel(8);
        mapper.driver = driver;
        mapper.gateways = gateways;
        (mapper, inputs)
    }

    async fn next(inputs: &mut mpsc::Receiver<Input>) -> Option<GatewayPort> {
        let next = tokio::time::timeout(Duration::from_secs(15), inputs.recv());
        match next.await.expect("it tells something") {
            Some(Input::PortMapping(told)) => Some(told),
            None => None,
            Some(other) => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_port_by_pcp_is_told_and_kept_through_changes_and_given_back_at_the_end() {
        let (socket, _) = fake::gateway(31).await;
        let stop = watch::Sender::new(false);
        let finder = Finder::by(|| Box::pin(async { Ok(at(31)) }));
        let (mut mapper, mut inputs) = running(finder, &stop);
        let (changes, network) = watch::channel(0);
        mapper.network = network;
        let port = mapper.port();
        let mapper = tokio::spawn(mapper.run());
        assert_eq!(next(&mut inputs).await, Some(GatewayPort::Unknown));
        let (seconds, nonce) = answer(&socket, SUCCESS, 3_600).await;
        assert_eq!(seconds, 3_600);
        let held = GatewayPort::Held(PortMapping {
            protocol: MappingProtocol::Pcp,
            external: SocketAddr::new(EXTERNAL.into(), port),
        });
        assert_eq!(next(&mut inputs).await, Some(held));
        // Addresses come and go beside a gateway that is the same.
        changes.send_replace(1);
        stop.send_replace(true);
        let released = answer(&socket, SUCCESS, 0).await;
        assert_eq!(released, (0, nonce));
        assert_eq!(next(&mut inputs).await, None, "nothing more was told");
        mapper.await.unwrap();
    }

    #[tokio::test]
    async fn a_permanent_port_by_upnp_is_found_told_and_given_back_at_the_end() {
        let igd = Igd::start(32, Leases::Permanent).await;
        let stop = watch::Sender::new(false);
        let finder = Finder::by(|| Box::pin(async { Ok(at(32)) }));
        let (mapper, mut inputs) = running(finder, &stop);
        let mapper = tokio::spawn(mapper.run());
        assert_eq!(next(&mut inputs).await, Some(GatewayPort::Unknown));
        let Some(GatewayPort::Held(held)) = next(&mut inputs).await else {
            panic!("no port")
        };
        assert_eq!(held.protocol, MappingProtocol::Upnp);
        assert_eq!(held.external.ip(), EXTERNAL);
        assert_eq!(igd.mapped(), [held.external.port()]);
        stop.send_replace(true);
        assert_eq!(next(&mut inputs).await, None);
        mapper.await.unwrap();
        assert!(igd.mapped().is_empty());
        assert_eq!(igd.did().last(), Some(&Did::Unmap(held.external.port())));
    }

    #[tokio::test]
    async fn without_a_gateway_there_is_none_until_the_network_is_another_one() {
        let stop = watch::Sender::new(false);
        let finder = Finder::by(|| Box::pin(async { Err("no gateway".to_owned()) }));
        let (mut mapper, mut inputs) = running(finder, &stop);
        let (changes, network) = watch::channel(0);
        mapper.network = network;
        let mapper = tokio::spawn(mapper.run());
        for _ in 0..3 {
            assert_eq!(next(&mut inputs).await, Some(GatewayPort::Unknown));
            assert_eq!(next(&mut inputs).await, Some(GatewayPort::None));
            changes.send_modify(|changes| *changes += 1);
        }
        stop.send_replace(true);
        // It may have heard of the last change before.
        while next(&mut inputs).await.is_some() {}
        mapper.await.unwrap();
    }
}
