//! What a token says, and that only its cluster can have said it.
//!
//! `t1.NAME.SINCE.MADE.NONCE.MAC`: the user (base64), the revision of the accounts
//! at which the password was shown, when that was (milliseconds since 1970), chance,
//! and an HMAC-SHA-256 over all before it. Its key is derived from the stored hash of
//! the user's password, which every node may ask for and no client is told: so any
//! member can verify a token by itself, and a new password makes another key. The
//! hash cannot be guessed from a token, for its salt is as unknown as a key.
//!
//! Source: RFC 2104; RFC 5869 for a key of one's own for each purpose.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use cluster::units::WallTime;
use ring::hmac;

use super::tokens::Proof;

/// The form, so that another one can be told from it.
const FORM: &str = "t1";
/// What the key is for: the hash may come to be used for more.
const PURPOSE: &[u8] = b"clusterdb: tokens of accounts, t1";

/// What a token says, as long as nobody has verified it.
#[derive(Debug)]
pub struct Claim<'a> {
    /// Whom it is for.
    pub proof: Proof,
    /// When it was made.
    pub made: WallTime,
    signed: &'a str,
    mac: Vec<u8>,
}

/// A token of somebody who showed the password that `hash` is of.
pub fn sign(proof: &Proof, made: WallTime, nonce: u128, hash: &str) -> String {
    let name = URL_SAFE_NO_PAD.encode(&proof.name);
    let signed = format!("{FORM}.{name}.{}.{}.{nonce:032x}", proof.since, made.0);
    let mac = hmac::sign(&key(hash), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac))
}

impl<'a> Claim<'a> {
    /// Reads a token; nothing if it is none.
    pub fn read(token: &'a str) -> Option<Self> {
        let (signed, mac) = token.rsplit_once('.')?;
        let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
        let mut parts = signed.split('.');
        if parts.next()? != FORM {
            return None;
        }
        let name = String::from_utf8(URL_SAFE_NO_PAD.decode(parts.next()?).ok()?).ok()?;
        let since = parts.next()?.parse().ok()?;
        let made = WallTime(parts.next()?.parse().ok()?);
        let _nonce = parts.next()?;
        parts.next().is_none().then_some(Self { proof: Proof { name, since }, made, signed, mac })
    }

    /// Whether it was made of this hash. How long that takes tells nothing.
    pub fn fits(&self, hash: &str) -> bool {
        hmac::verify(&key(hash), self.signed.as_bytes(), &self.mac).is_ok()
    }
}

fn key(hash: &str) -> hmac::Key {
    let of_hash = hmac::Key::new(hmac::HMAC_SHA256, hash.as_bytes());
    hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&of_hash, PURPOSE).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$pbkdf2-sha256$1$c2FsdA$aGFzaA";

    fn token() -> String {
        sign(&Proof { name: "änn.b".into(), since: 7 }, WallTime(1_000), 3, HASH)
    }

    fn holds(token: &str, hash: &str) -> bool {
        Claim::read(token).is_some_and(|claim| claim.fits(hash))
    }

    #[test]
    fn a_token_says_who_since_when_and_holds_for_one_hash() {
        let token = token();
        let claim = Claim::read(&token).unwrap();
        assert_eq!(claim.proof, Proof { name: "änn.b".into(), since: 7 });
        assert_eq!(claim.made, WallTime(1_000));
        assert!(claim.fits(HASH) && !claim.fits("") && !claim.fits(&HASH.replace("c2F", "c2G")));
        assert!(token.is_ascii() && token.starts_with("t1.w6Rubi5i.7.1000.0000"), "{token}");
    }

    #[test]
    fn a_token_with_any_byte_changed_holds_no_more() {
        let token = token();
        for place in 0..token.len() {
            for other in "A.0~".chars().filter(|other| !token[place..].starts_with(*other)) {
                let mut changed = token.clone();
                changed.replace_range(place..=place, &other.to_string());
                assert!(!holds(&changed, HASH), "{changed}");
            }
            assert!(!holds(&token[..place], HASH), "cut at {place}");
        }
        assert!(!holds(&format!("{token}A"), HASH) && !holds(&format!("{token}."), HASH));
    }

    #[test]
    fn a_token_of_one_user_is_none_of_another() {
        let token = token();
        let other = token.replace("w6Rubi5i", &URL_SAFE_NO_PAD.encode("root"));
        assert_eq!(Claim::read(&other).unwrap().proof.name, "root");
        // Not even if both had the same hash.
        assert!(holds(&token, HASH) && !holds(&other, HASH));
    }

    #[test]
    fn what_is_no_token_says_nothing() {
        for strange in
            ["", ".", "strange", "strange.1", "t1.....", "t1.YQ.x.1.0.YQ", "t2.YQ.1.1.0.YQ"]
        {
            assert!(Claim::read(strange).is_none(), "{strange}");
        }
        assert!(!holds("t1.YQ.1.1.0.", HASH), "none is no MAC");
    }
}
