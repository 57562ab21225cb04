use std::cell::{Cell, RefCell};
use std::net::SocketAddr;

use super::*;
use crate::config::{Check, Health};
use crate::health::check::Failure;
use crate::net::dial::Address;
use crate::upstream::endpoint::Protocol;

const SECOND: Duration = Duration::from_secs(1);

thread_local! {
    /// What the checks of this thread's test find, by the first address; they pass where
    /// nothing is said.
    static VERDICTS: RefCell<HashMap<Address, Verdict>> = RefCell::default();
    /// When each check began, and which it was of.
    static BEGAN: RefCell<Vec<(u64, Instant)>> = RefCell::default();
    static UNDER_WAY: Cell<usize> = const { Cell::new(0) };
    static MOST: Cell<usize> = const { Cell::new(0) };
}

/// How long a check of these tests takes.
const TAKES: Duration = Duration::from_millis(10);

/// A check without a network.
fn pretend(probe: Rc<Probe>) -> Pin<Box<dyn Future<Output = Verdict>>> {
    Box::pin(async move {
        let Target { id, addresses, .. } = probe.target();
        BEGAN.with_borrow_mut(|began| began.push((*id, Instant::now())));
        UNDER_WAY.set(UNDER_WAY.get() + 1);
        MOST.set(MOST.get().max(UNDER_WAY.get()));
        tokio::time::sleep(TAKES).await;
        UNDER_WAY.set(UNDER_WAY.get() - 1);
        VERDICTS.with_borrow(|all| all.get(&addresses[0]).cloned()).unwrap_or(Ok(()))
    })
}

/// Pretended checks on a clock that goes on by itself whenever there is nothing to do.
fn checks() -> Checks {
    tokio::time::pause();
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    fastrand::seed(seed);
    Checks::new(pretend)
}

fn find(port: u16, verdict: Verdict) {
    VERDICTS.with_borrow_mut(|all| all.insert(address(&port), verdict));
}

fn unwell(why: &str) -> Verdict {
    Err(Failure::Unwell(why.into()))
}

fn address(port: &u16) -> Address {
    SocketAddr::from(([127, 0, 0, 1], *port)).into()
}

fn target(id: u64, ports: &[u16]) -> Target {
    Target {
        id,
        label: format!("http://app:{id}"),
        addresses: ports.iter().map(address).collect(),
        protocol: Protocol::Http1,
        proxy: None,
        authority: "app".into(),
        health: Health::new(Check::Tcp),
    }
}

/// Waits for the next change.
async fn next_change(checks: &mut Checks) -> Change {
    loop {
        if let Some(change) = checks.next().await {
            return change;
        }
    }
}

/// The changes within `time`, as the number and what it is.
async fn changes(checks: &mut Checks, time: Duration) -> Vec<(u64, bool)> {
    let until = Instant::now() + time;
    let mut changes = Vec::new();
    while let Ok(change) = timeout_at(until, next_change(checks)).await {
        changes.push((change.id, change.is_up));
    }
    changes
}

#[tokio::test(flavor = "local")]
async fn a_thousand_begin_at_once_within_the_bound_and_then_spread() {
    let mut checks = checks();
    checks.follow((0..1000).map(|id| target(id, &[1])).collect());
    let start = Instant::now();
    let first = checks.wait_for_first_results(SECOND).await;
    assert_eq!(first.len(), 1000);
    assert!(first.iter().all(|change| change.is_up && change.is_first));
    // The wait for a turn belongs to no check.
    assert!(first.iter().all(|change| change.took < 2 * TAKES), "{:?}", first[999]);
    assert!(start.elapsed() < SECOND / 2, "{:?}", start.elapsed());
    assert_eq!(MOST.get(), MAX_CHECKS);

    assert_eq!(changes(&mut checks, 60 * SECOND).await, []);
    assert_eq!(MOST.get(), MAX_CHECKS);
    // From one minute on: about 200 a second, where in step it would be 1000 and none.
    let mut seconds = HashMap::new();
    BEGAN.with_borrow(|began| {
        for (_, at) in began.iter().filter(|(_, at)| *at - start > SECOND) {
            *seconds.entry((*at - start).as_secs()).or_insert(0) += 1;
        }
    });
    let counts = (1..60).map(|second| seconds[&second]);
    assert!(counts.clone().all(|count| (120..300).contains(&count)), "{seconds:?}");
    assert!(checks.state(7).is_some_and(|state| (11..=16).contains(&state.passed)));
}

#[tokio::test(flavor = "local")]
async fn checks_of_one_are_about_an_interval_apart_also_when_it_is_down() {
    let mut checks = checks();
    find(1, unwell("status 503"));
    checks.follow(vec![target(0, &[1])]);
    changes(&mut checks, 600 * SECOND).await;
    let began: Vec<Instant> = BEGAN.with_borrow(|began| began.iter().map(|(_, at)| *at).collect());
    let apart: Vec<Duration> = began.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // The clock's steps are of a millisecond.
    let bounds = Duration::from_millis(4500)..=Duration::from_millis(5502);
    assert!(apart[0] <= Duration::from_millis(5002), "any part of it first");
    assert!(apart[1..].iter().all(|time| bounds.contains(time)), "{apart:?}");
    assert!((105..=140).contains(&began.len()), "{}", began.len());
}

#[test]
fn pauses_are_within_a_tenth() {
    let pauses = [0.0, 0.5, 1.0].map(|draw| pause(10 * SECOND, draw).as_secs_f64().round());
    assert_eq!(pauses, [9.0, 10.0, 11.0]);
}

#[tokio::test(flavor = "local")]
async fn only_changes_are_told() {
    let mut checks = checks();
    checks.follow(vec![target(0, &[1]), target(1, &[2])]);
    find(2, unwell("status 500"));
    let first = checks.wait_for_first_results(SECOND).await;
    let whys: Vec<_> = first.iter().map(|change| (change.id, &*change.why)).collect();
    assert_eq!(whys, [(0, "the check passed"), (1, "status 500")]);

    assert_eq!(changes(&mut checks, 60 * SECOND).await, []);
    let start = Instant::now();
    find(1, unwell("connection refused"));
    let down = next_change(&mut checks).await;
    assert_eq!((down.id, down.is_up, &*down.why), (0, false, "connection refused"));
    assert!(start.elapsed() >= 9 * SECOND, "three in a row: {:?}", start.elapsed());
    let state = checks.state(0).unwrap();
    assert_eq!((state.is_up, state.failed), (Some(false), 3));
    assert_eq!(state.since, state.last.as_ref().map(|last| last.at));

    find(2, Ok(()));
    let up = next_change(&mut checks).await;
    assert_eq!((up.id, up.is_up, up.is_first), (1, true, false));
}

#[tokio::test(flavor = "local")]
async fn who_is_gone_is_left_alone_and_who_has_changed_keeps_what_is_known() {
    let mut checks = checks();
    checks.follow((0..3).map(|id| target(id, &[1])).collect());
    assert_eq!(checks.wait_for_first_results(SECOND).await.len(), 3);
    let before = BEGAN.with_borrow(Vec::len);
    let start = Instant::now();

    // The streak goes on at the new address: it takes three failures.
    find(2, unwell("connection refused"));
    checks.follow(vec![target(0, &[1]), target(1, &[2])]);
    assert!(checks.state(2).is_none());
    assert_eq!(checks.wait_for_first_results(SECOND).await, []);
    assert_eq!(Instant::now(), start, "there is none to wait for");
    assert_eq!(changes(&mut checks, TAKES / 2).await, []);
    let at_once = (1, start);
    assert!(BEGAN.with_borrow(|began| began[before..].contains(&at_once)));
    assert_eq!(checks.state(1).unwrap().is_up, Some(true));
    assert_eq!(changes(&mut checks, 30 * SECOND).await, [(1, false)]);
    assert!(BEGAN.with_borrow(|began| began[before..].iter().all(|(id, _)| *id != 2)));

    // What was found of the old target says nothing about the new one.
    checks.follow(vec![target(1, &[2]), target(3, &[1])]);
    tokio::time::sleep(2 * TAKES).await;
    checks.follow(vec![target(1, &[2]), target(3, &[2])]);
    let first = checks.wait_for_first_results(SECOND).await;
    assert_eq!(first.iter().map(|c| (c.id, c.is_up)).collect::<Vec<_>>(), [(3, false)]);
    checks.follow(Vec::new());
    let count = BEGAN.with_borrow(Vec::len);
    assert_eq!(changes(&mut checks, 30 * SECOND).await, []);
    assert_eq!(BEGAN.with_borrow(Vec::len), count);
}

#[tokio::test(flavor = "local")]
async fn without_an_address_it_is_down_and_its_first_address_decides_alone() {
    let mut checks = checks();
    checks.follow(vec![target(0, &[])]);
    let first = checks.wait_for_first_results(SECOND).await;
    assert_eq!(first.len(), 1);
    assert_eq!((first[0].is_up, &*first[0].why), (false, "the name has no address"));
    assert_eq!(changes(&mut checks, 30 * SECOND).await, []);
    checks.follow(vec![target(0, &[1])]);
    assert_eq!(changes(&mut checks, 2 * TAKES).await, [(0, true)]);
    checks.follow(vec![target(0, &[])]);
    assert_eq!(changes(&mut checks, TAKES).await, [(0, false)]);
}

#[tokio::test(flavor = "local")]
async fn a_check_that_could_not_be_made_decides_nothing_and_is_not_waited_for_again() {
    let mut checks = checks();
    find(1, Err(Failure::NotMade("out of descriptors or local ports".into())));
    checks.follow(vec![target(0, &[1])]);
    let start = Instant::now();
    assert_eq!(checks.wait_for_first_results(SECOND).await, []);
    assert!(start.elapsed() < SECOND);
    assert_eq!(changes(&mut checks, 30 * SECOND).await, []);
    let state = checks.state(0).unwrap();
    assert_eq!((state.is_up, state.passed + state.failed), (None, 0));
    assert!(state.not_made > 4);
    find(1, Ok(()));
    let change = next_change(&mut checks).await;
    assert!(change.is_up && change.is_first);
}
