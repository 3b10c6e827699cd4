//! What the mapper does with a gateway's answers, and with their absence.

use super::*;

fn mapper(delay: Duration, stop: &watch::Sender<bool>) -> PortMapper {
    let (socket, _driver) = Socket::bind(&["127.0.0.1:0".parse().unwrap()], 1444).unwrap();
    PortMapper {
        socket,
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
