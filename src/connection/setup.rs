//! How the library is set up: its settings, the addresses it binds, and its callbacks.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rtc::ice::mdns::MulticastDnsMode;
use rtc::peer_connection::configuration::setting_engine::SctpMaxMessageSize;
use rtc::peer_connection::transport::RTCDtlsRole;
use webrtc::data_channel::DataChannel;
use webrtc::peer_connection::{
    PeerConnectionEventHandler, RTCIceConnectionState, RTCPeerConnectionIceEvent, RTCPeerConnectionState,
    SettingEngine, SettingEngineBuilder,
};

use super::{ConnectionState, IceCandidate, PeerConnectionConfig, Shared};
use crate::error::ConnectionError;
use crate::event::Stage;
use crate::random;

/// The receive window: far more than the credits between two members of this crate ever let it fill.
const RECEIVE_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// How often ICE tries a pair of addresses, and for how many tries: quick on a near
/// network, and for as long as anyone tries to connect a peer.
const ICE_CHECK_INTERVAL: Duration = Duration::from_millis(20);
const ICE_CHECKS: u16 = u16::MAX;

/// How long a pair that was found by the remote's checks waits for one that signalling names. Checks overtake the
/// candidate that they come from in one link of six, and the library never takes the two for the same: such a link
/// would wait for its whole default of 1 s. Long enough for a near direct path to show up beside a relay.
const ICE_PEER_REFLEXIVE_WAIT: Duration = Duration::from_millis(50);

/// With relays alone there is no better pair to wait for; the library would for its default of 2 s.
const ICE_RELAY_WAIT: Option<Duration> = Some(Duration::ZERO);

/// How often a relay is prolonged. The library does not repeat what a TURN server refuses for a stale nonce, so at its
/// default of half the relay's lifetime, two such refusals lose the relay, or one does with a late answer before it.
const TURN_REFRESH_INTERVAL: Duration = Duration::from_secs(20);

/// ICE never says that the remote is silent, as its clock runs ahead; [`Clock`](super::clock::Clock) does.
const ICE_DISCONNECTED_AFTER: Duration = Duration::ZERO;
/// Nor does it give up by itself; the mesh's limits decide.
const ICE_FAILED_AFTER: Duration = Duration::ZERO;
/// A little less than a second, so that an idle link is not too early for the next [beat](super::clock::Clock).
pub(super) const ICE_KEEPALIVE: Duration = Duration::from_millis(950);

pub(super) fn settings(config: &PeerConnectionConfig) -> SettingEngine {
    SettingEngineBuilder::new()
        .with_include_loopback_candidate(true)
        // As the DTLS server we lose nothing of what the remote sends the moment it is connected; as the client we
        // would. Offers leave the choice to the answerer, which is the server here, and the client elsewhere.
        .with_answering_dtls_role(RTCDtlsRole::Server)
        // Off, it saves a socket per connection.
        .with_multicast_dns_mode(MulticastDnsMode::Disabled)
        .with_ice_timeouts(Some(ICE_DISCONNECTED_AFTER), Some(ICE_FAILED_AFTER), Some(ICE_KEEPALIVE))
        // A restart binds new sockets, on the addresses that there are by then.
        .with_discard_local_candidates_during_ice_restart(true)
        .with_ice_connection_attempts(Some(ICE_CHECK_INTERVAL), Some(ICE_CHECKS))
        .with_prflx_acceptance_min_wait(Some(ICE_PEER_REFLEXIVE_WAIT))
        .with_relay_acceptance_min_wait(if config.relay_only { ICE_RELAY_WAIT } else { None })
        .with_turn_allocation_refresh_interval_cap(TURN_REFRESH_INTERVAL)
        .with_sctp_max_message_size(SctpMaxMessageSize::Bounded(config.longest_message() as u32))
        .with_sctp_max_receive_buffer_size(RECEIVE_WINDOW_BYTES)
        .build()
}

/// What to bind: the addresses of this machine at that moment, as they may be others when ICE restarts.
pub(super) struct Addresses {
    config: PeerConnectionConfig,
    #[cfg(feature = "sim")]
    attachment: Option<Arc<crate::sim::Attachment>>,
}

impl Addresses {
    pub(super) fn of(config: &PeerConnectionConfig) -> Result<Addresses, ConnectionError> {
        let addresses = Addresses {
            config: config.clone(),
            #[cfg(feature = "sim")]
            attachment: None,
        };
        #[cfg(feature = "sim")]
        if let Some(host) = &config.host {
            let attached = host.attach(addresses.now()?);
            let attachment = attached.map_err(|error| ConnectionError::Bind(error.to_string()))?;
            return Ok(Addresses { attachment: Some(attachment), ..addresses });
        }
        Ok(addresses)
    }

    pub(super) fn now(&self) -> Result<Vec<SocketAddr>, ConnectionError> {
        #[cfg(feature = "sim")]
        if let Some(attachment) = &self.attachment {
            return Ok(attachment.stand_ins());
        }
        let is_free = |addr| self.config.is_free(addr);
        with_ports(self.config.addresses(), self.config.port_range.as_ref(), is_free)
    }

    /// The place on a simulated host.
    #[cfg(feature = "sim")]
    pub(super) fn attachment(&self) -> Option<Arc<crate::sim::Attachment>> {
        self.attachment.clone()
    }
}

impl ToSocketAddrs for Addresses {
    type Iter = std::vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        self.now().map(Vec::into_iter).map_err(io::Error::other)
    }
}

/// Gives each address without a port one of the range that is free now.
fn with_ports(
    mut addresses: Vec<SocketAddr>,
    range: Option<&RangeInclusive<u16>>,
    is_free: impl Fn(SocketAddr) -> bool,
) -> Result<Vec<SocketAddr>, ConnectionError> {
    let Some(range) = range else { return Ok(addresses) };
    let ports: Vec<u16> = range.clone().filter(|port| *port != 0).collect();
    if ports.is_empty() {
        return Err(ConnectionError::Bind("the port range is empty".to_owned()));
    }
    for addr in addresses.iter_mut().filter(|addr| addr.port() == 0) {
        let start = random::below(ports.len() as u32) as usize;
        let mut candidates = ports[start..].iter().chain(&ports[..start]);
        let free = candidates.find(|port| is_free(SocketAddr::new(addr.ip(), **port)));
        match free {
            Some(port) => addr.set_port(*port),
            None => {
                return Err(ConnectionError::Bind(format!(
                    "no port of {}..={} is free",
                    range.start(),
                    range.end()
                )));
            }
        }
    }
    Ok(addresses)
}

/// The candidate as the remote is told it: with the public address in the place of an interface's own, if there is one
/// of its family. (The library has a setting for that, which it does not look at.) The port stays, as a one-to-one NAT
/// leaves it.
fn announced(candidate: &str, public: &[IpAddr]) -> String {
    let mut fields: Vec<String> = candidate.split(' ').map(str::to_owned).collect();
    let own = fields.get(4).and_then(|address| address.parse::<IpAddr>().ok());
    let is_host = fields.get(7).is_some_and(|kind| kind == "host");
    if let (true, Some(own)) = (is_host, own)
        && let Some(address) = public.iter().find(|address| address.is_ipv4() == own.is_ipv4())
    {
        fields[4] = address.to_string();
    }
    fields.join(" ")
}

/// The candidate of a relay without the address that asked for it, which the library puts beside it (as browsers do:
/// RFC 8828 section 5.2).
fn anonymous(candidate: &str) -> String {
    let mut fields: Vec<&str> = candidate.split(' ').collect();
    let unspecified =
        if fields.get(4).is_some_and(|address| address.contains(':')) { "::" } else { "0.0.0.0" };
    for (name, value) in [("raddr", unspecified), ("rport", "0")] {
        if let Some(at) = fields.iter().skip(8).position(|field| *field == name)
            && let Some(field) = fields.get_mut(8 + at + 1)
        {
            *field = value;
        }
    }
    fields.join(" ")
}

/// The library's callbacks. They run on its driver, so none of them waits.
pub(super) struct Handler {
    pub(super) shared: Arc<Shared>,
    /// Addresses that are announced instead of the interfaces' own.
    pub(super) public: Vec<IpAddr>,
    pub(super) relay_only: bool,
    #[cfg(feature = "sim")]
    pub(super) attachment: Option<Arc<crate::sim::Attachment>>,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_candidate(&self, event: RTCPeerConnectionIceEvent) {
        let Ok(init) = event.candidate.to_json() else { return };
        let candidate = init.candidate;
        if candidate.trim_start_matches("candidate:").is_empty() {
            return;
        }
        #[cfg(feature = "sim")]
        let candidate =
            self.attachment.as_ref().map_or(candidate.clone(), |attachment| attachment.announced(&candidate));
        let mut candidate = announced(&candidate, &self.public);
        if self.relay_only {
            candidate = anonymous(&candidate);
        }
        self.shared.record.local(&candidate);
        self.shared.name_session(&mut candidate);
        // The library leaves the mid empty, and Godot's demo drops a candidate that has none.
        self.shared.signals.candidate(IceCandidate {
            candidate,
            sdp_mid: "0".to_owned(),
            sdp_mline_index: 0,
        });
    }

    async fn on_ice_connection_state_change(&self, state: RTCIceConnectionState) {
        tracing::debug!(?state, "ICE");
        if matches!(state, RTCIceConnectionState::Connected | RTCIceConnectionState::Completed) {
            self.shared.record.enter(Stage::Dtls);
            self.shared.condition.send_if_modified(|condition| {
                let later = condition.stage < Stage::Dtls;
                condition.stage = condition.stage.max(Stage::Dtls);
                later
            });
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        tracing::debug!(?state, "connection");
        match state {
            RTCPeerConnectionState::Connecting => {
                self.shared.clock.search(true);
                self.shared.progress.look_anew();
                self.shared.set_state(ConnectionState::Connecting);
            }
            RTCPeerConnectionState::Connected => {
                self.shared.clock.search(false);
                self.shared.set_state(ConnectionState::Connected);
            }
            RTCPeerConnectionState::Failed => self.shared.set_state(ConnectionState::Failed),
            // Reported when the remote goes first, too; that is not our `Closed`.
            RTCPeerConnectionState::Closed => {
                self.shared.condition.send_modify(|condition| condition.remote_closed = true);
                self.shared.set_state(ConnectionState::Failed);
            }
            _ => {}
        }
    }

    /// The mesh's channels are agreed on beforehand; whatever else the remote opens is closed.
    async fn on_data_channel(&self, channel: Arc<dyn DataChannel>) {
        self.shared.refused_channels.fetch_add(1, Ordering::Relaxed);
        tracing::debug!("a channel that the remote opened in-band is closed");
        let _ = channel.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_that_asked_for_a_relay_is_left_out() {
        let relay = "candidate:1 1 udp 16777215 192.0.2.1 49152 typ relay raddr 10.0.0.1 rport 5000 ufrag ab";
        let told = "candidate:1 1 udp 16777215 192.0.2.1 49152 typ relay raddr 0.0.0.0 rport 0 ufrag ab";
        assert_eq!(anonymous(relay), told);
        let relay = "candidate:1 1 udp 1 2001:db8::1 49152 typ relay raddr fd00::1 rport 5000";
        assert_eq!(anonymous(relay), "candidate:1 1 udp 1 2001:db8::1 49152 typ relay raddr :: rport 0");
        for other in ["", "candidate:1 1 udp 1 192.0.2.1 49152 typ relay", "a b c d e f g h raddr"] {
            assert_eq!(anonymous(other), other);
        }
    }
}
