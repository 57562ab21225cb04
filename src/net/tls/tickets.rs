//! Session tickets: clients keep their sessions themselves, encrypted with keys that nobody else has
//! and that are forgotten after a while (RFC 8446 4.6.1, RFC 5077).

use std::sync::Arc;

use rustls::Error;
use rustls::crypto::GetRandomFailed;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::ProducesTickets;
use rustls::ticketer::TicketRotator;

/// Seconds for which a key encrypts tickets; for as long again it decrypts them. Whoever comes by the
/// process's memory can read TLS 1.2 sessions of that time, so it is less than a day.
const ROTATION: u32 = 6 * 3600;

/// The same where clients have certificates: a session that is resumed is not asked for one again, so
/// this is how long one that has ended, or been revoked, may still be good for.
const ROTATION_WITH_CLIENTS: u32 = 600;

/// Tickets whose keys change by themselves.
pub(super) fn tickets(has_clients: bool) -> Result<Arc<dyn ProducesTickets>, Error> {
    let rotation = if has_clients { ROTATION_WITH_CLIENTS } else { ROTATION };
    Ok(Arc::new(TicketRotator::new(rotation, key)?))
}

/// One key. The library has no other way to come by one than with a rotation of its own, which is as
/// long as the longest here.
#[derive(Debug)]
struct Key(Arc<dyn ProducesTickets>);

fn key() -> Result<Box<dyn ProducesTickets>, GetRandomFailed> {
    Ok(Box::new(Key(Ticketer::new().map_err(|_| GetRandomFailed)?)))
}

impl ProducesTickets for Key {
    fn enabled(&self) -> bool {
        self.0.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.0.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.0.encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.0.decrypt(cipher)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_are_good_for_as_long_as_they_say() {
        for (has_clients, lifetime) in [(false, 12 * 3600), (true, 1200)] {
            let tickets = tickets(has_clients).unwrap();
            // What clients are told, and twice what a key is used for.
            assert_eq!(tickets.lifetime(), lifetime);
            let ticket = tickets.encrypt(b"session").unwrap();
            assert_eq!(tickets.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
            assert_eq!(super::tickets(has_clients).unwrap().decrypt(&ticket), None, "another key");
        }
    }
}
