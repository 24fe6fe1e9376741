//! How far a DTLS handshake has come, and what of it is sent again.

/// How far the other side's handshake has come, as its datagrams show without a key.
#[derive(Debug, Default)]
pub(super) struct Handshake {
    /// The highest message number heard in the clear (RFC 6347 section 4.2.2). A repeated flight has none higher.
    highest: Option<u16>,
    /// ChangeCipherSpec, or an encrypted handshake record, was heard.
    finishing: bool,
    /// Application data was heard: DTLS is up.
    data: bool,
    /// Counts what was new.
    pub(super) news: u64,
}

impl Handshake {
    pub(super) fn heard(&mut self, datagram: &[u8]) {
        let new = match datagram {
            [HANDSHAKE, _, _, 0, 0, ..] => {
                let number = datagram.get(17..19).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
                let new = number > self.highest;
                self.highest = self.highest.max(number);
                new
            }
            [HANDSHAKE | CHANGE_CIPHER_SPEC, ..] => !std::mem::replace(&mut self.finishing, true),
            [APPLICATION_DATA, ..] => !std::mem::replace(&mut self.data, true),
            _ => false,
        };
        self.news += u64::from(new);
    }
}

/// DTLS record types (RFC 6347 section 4.1); they share the port with STUN, whose datagrams begin with 0 or 1.
pub(super) const CHANGE_CIPHER_SPEC: u8 = 20;
pub(super) const HANDSHAKE: u8 = 22;
pub(super) const APPLICATION_DATA: u8 = 23;

/// The place of a handshake message's kind, after the header of its record (RFC 6347 sections 4.1 and 4.2.2).
const MESSAGE_KIND: usize = 13;
const HELLO_VERIFY_REQUEST: u8 = 3;

/// Whether it belongs to a flight that its sender has to repeat. A HelloVerifyRequest does not (RFC 6347 section
/// 4.2.1), and werift fails over one that comes again. But this library does not, and without it a lost one costs a
/// second each time.
pub(super) fn is_to_be_repeated(datagram: &[u8], among_us: bool) -> bool {
    match datagram {
        [HANDSHAKE, ..] => among_us || datagram.get(MESSAGE_KIND) != Some(&HELLO_VERIFY_REQUEST),
        [CHANGE_CIPHER_SPEC, ..] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, epoch: u8, message: u8) -> Vec<u8> {
        let mut datagram = vec![0; 40];
        (datagram[0], datagram[4], datagram[18]) = (kind, epoch, message);
        datagram
    }

    #[test]
    fn flights_are_repeated_and_to_strangers_a_request_for_a_cookie_is_not() {
        let message = |kind| {
            let mut datagram = record(HANDSHAKE, 0, 0);
            datagram[MESSAGE_KIND] = kind;
            datagram
        };
        for among_us in [false, true] {
            let is_to_be_repeated = |datagram: &[u8]| is_to_be_repeated(datagram, among_us);
            assert!(is_to_be_repeated(&message(1)), "ClientHello");
            assert_eq!(is_to_be_repeated(&message(HELLO_VERIFY_REQUEST)), among_us);
            assert!(is_to_be_repeated(&message(11)), "Certificate");
            assert!(is_to_be_repeated(&record(CHANGE_CIPHER_SPEC, 0, 0)));
            assert!(!is_to_be_repeated(&[0, 1]) && !is_to_be_repeated(&[]), "STUN, nothing");
        }
    }

    #[test]
    fn a_repeated_flight_is_no_news_and_a_later_one_is() {
        let mut handshake = Handshake::default();
        let mut news = |datagram: &[u8]| {
            let before = handshake.news;
            handshake.heard(datagram);
            handshake.news > before
        };
        assert!(news(&record(HANDSHAKE, 0, 0)), "ClientHello");
        assert!(!news(&record(HANDSHAKE, 0, 0)), "the same again");
        assert!(news(&record(HANDSHAKE, 0, 1)), "ClientHello with the cookie");
        assert!(news(&record(CHANGE_CIPHER_SPEC, 0, 0)));
        assert!(!news(&record(HANDSHAKE, 1, 0)), "Finished comes with ChangeCipherSpec");
        assert!(news(&record(APPLICATION_DATA, 1, 0)));
        assert!(!news(&record(APPLICATION_DATA, 1, 0)));
        assert!(!news(&[0, 1, 2]) && !news(&[]) && !news(&[HANDSHAKE]), "STUN, nothing, a stub");
    }
}
