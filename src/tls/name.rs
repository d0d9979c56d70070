//! Who a client is by its certificate, once that was verified.

use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use webpki::EndEntityCert;

/// The object identifier of a common name: 2.5.4.3.
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];

/// Tags of DER: text as UTF-8 or a part of it, and what a name consists of.
const TEXTS: [u8; 3] = [0x0c, 0x13, 0x16];
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;

/// The first DNS name in the certificate of a client, or else its common name. None if it has sent no
/// certificate.
pub(crate) fn name(stream: &TlsStream<TcpStream>) -> Option<Arc<str>> {
    let (_, connection) = stream.get_ref();
    let certificate = EndEntityCert::try_from(connection.peer_certificates()?.first()?).ok()?;
    let name = certificate.valid_dns_names().next();
    name.or_else(|| common_name(certificate.subject())).map(Arc::from)
}

/// The common name in a subject: a sequence of sets of pairs of an identifier and a text.
fn common_name(mut subject: &[u8]) -> Option<&str> {
    while !subject.is_empty() {
        let mut set = take(SET, &mut subject)?;
        while !set.is_empty() {
            let mut pair = take(SEQUENCE, &mut set)?;
            if take(OBJECT_IDENTIFIER, &mut pair)? == COMMON_NAME {
                let text = TEXTS.into_iter().find(|tag| pair.first() == Some(tag))?;
                return std::str::from_utf8(take(text, &mut pair)?).ok();
            }
        }
    }
    None
}

/// Takes the contents of the next element off, which must have this tag.
fn take<'a>(tag: u8, der: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (&[found, length], rest) = der.split_first_chunk()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81 => rest.split_first().map(|(&length, rest)| (usize::from(length), rest))?,
        // A part of a subject is never so long that two bytes do not tell it.
        0x82 => {
            let (&length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(length)), rest)
        }
        _ => return None,
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    *der = rest;
    (found == tag).then_some(contents)
}

#[cfg(test)]
mod tests {
    use super::common_name;

    #[test]
    fn the_common_name_is_found_among_others() {
        let country = b"\x31\x0b\x30\x09\x06\x03\x55\x04\x06\x13\x02DE";
        let common = b"\x31\x11\x30\x0f\x06\x03\x55\x04\x03\x0c\x08producer";
        let subject = [&country[..], common].concat();
        assert_eq!(common_name(&subject), Some("producer"));
        assert_eq!(common_name(country), None);
        for end in 0..subject.len() {
            assert_eq!(common_name(&subject[..end]), None, "cut at {end}");
        }
    }
}
