//! How many clients there are of each address: [`Households`].

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::rate::household;
use super::rendezvous::SessionSecret;

/// Clients of each IPv4 address, and each /64 of IPv6. There are no more entries than there are clients.
#[derive(Debug)]
pub(super) struct Households {
    max: usize,
    households: Mutex<HashMap<IpAddr, Household>>,
}

#[derive(Debug, Default)]
struct Household {
    places: usize,
    /// Connections of each session. Two of one session take one place: the first is kept for the second, or is about to
    /// be replaced.
    sessions: HashMap<SessionSecret, usize>,
}

/// That a client counts, until this is dropped.
pub(super) struct Place {
    households: Arc<Households>,
    address: IpAddr,
    session: Option<SessionSecret>,
}

impl Households {
    pub(super) fn new(max: usize) -> Arc<Households> {
        Arc::new(Households { max, households: Mutex::default() })
    }

    /// A place for one more, if there is one.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr, session: Option<SessionSecret>) -> Option<Place> {
        let address = household(address);
        let mut households = self.lock();
        let there = households.get(&address);
        let connections = there.zip(session).and_then(|(there, session)| there.sessions.get(&session));
        let comes_back = connections.is_some_and(|connections| connections % 2 == 1);
        if !comes_back && there.map_or(0, |there| there.places) >= self.max {
            return None;
        }
        let there = households.entry(address).or_default();
        there.places += usize::from(!comes_back);
        if let Some(session) = session {
            *there.sessions.entry(session).or_default() += 1;
        }
        drop(households);
        Some(Place { households: Arc::clone(self), address, session })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Household>> {
        self.households.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Household {
    fn leave(&mut self, session: Option<SessionSecret>) {
        let mut shared = false;
        if let Some(session) = session
            && let Some(connections) = self.sessions.get_mut(&session)
        {
            shared = *connections % 2 == 0;
            *connections -= 1;
            if *connections == 0 {
                self.sessions.remove(&session);
            }
        }
        self.places -= usize::from(!shared);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut households = self.households.lock();
        if let Some(household) = households.get_mut(&self.address) {
            household.leave(self.session);
            if household.places == 0 {
                households.remove(&self.address);
            }
        }
    }
}

/// Without the address and the session.
impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(number: u8) -> Option<SessionSecret> {
        Some(format!("{number:032x}").parse().unwrap())
    }

    #[test]
    fn each_address_has_so_many_places_and_no_more() {
        let households = Households::new(2);
        let take = |address: &str| households.take(address.parse().unwrap(), None);
        let (one, two) = (take("2001:db8::1"), take("2001:db8::2"));
        assert!(one.is_some() && two.is_some());
        assert!(take("2001:db8::3").is_none());
        assert!(take("2001:db8:0:1::3").is_some() && take("192.0.2.1").is_some());
        drop(one);
        assert!(take("2001:db8::3").is_some());
        drop(two);
        assert!(households.lock().is_empty());
    }

    #[test]
    fn who_comes_back_has_a_place_and_gives_it_to_nobody_else() {
        let households = Households::new(2);
        let take = |session| households.take(IpAddr::from([192, 0, 2, 1]), session);
        let (former, other) = (take(session(1)), take(None));
        assert!(take(session(2)).is_none() && take(None).is_none());
        let back = take(session(1));
        assert!(back.is_some());
        assert!(take(session(1)).is_none(), "no more than two for one");
        drop(former);
        assert!(take(None).is_none(), "its place is taken");
        drop(back);
        assert!(take(None).is_some());
        drop(other);
        assert!(households.lock().is_empty());
    }
}
