//! Identity: what is issued reads back, what is bent is refused, secrets stay secret.

use std::sync::atomic::{AtomicU64, Ordering};

use cluster::{
    ids::{ClusterId, NodeId, TenantId},
    ports::entropy::Entropy,
    units::WallTime,
};

use super::*;

#[derive(Debug)]
struct Seeded(AtomicU64);

impl Entropy for Seeded {
    fn fill(&self, bytes: &mut [u8]) {
        for byte in bytes {
            let state = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            *byte = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb).to_be_bytes()[0];
        }
    }
}

const NOW: WallTime = WallTime(1_800_000_000_000);

fn seeded(seed: u64) -> Seeded {
    Seeded(AtomicU64::new(seed))
}

#[test]
fn a_certificate_names_its_cluster_and_holder() {
    let entropy = seeded(1);
    let authority = Authority::create(ClusterId(7), &entropy, NOW).unwrap();
    let node = authority.issue_node(NodeId(42), &entropy, NOW).unwrap();
    assert_eq!(node.names().cluster, ClusterId(7));
    assert_eq!(node.names().subject, Subject::Node(NodeId(42)));
    let client = authority.issue_client("ann@example", TenantId(3), &entropy, NOW).unwrap();
    let read = CertificateNames::read(client.certificate()).unwrap();
    assert_eq!(
        read.subject,
        Subject::Client { principal: "ann@example".into(), tenant: TenantId(3) }
    );
}

#[test]
fn the_same_seed_gives_the_same_certificates() {
    let issue = || {
        let entropy = seeded(5);
        let authority = Authority::create(ClusterId(7), &entropy, NOW).unwrap();
        authority.issue_node(NodeId(1), &entropy, NOW).unwrap().certificates_pem()
    };
    assert_eq!(issue(), issue());
}

#[test]
fn a_principal_that_could_forge_a_name_is_refused() {
    let entropy = seeded(1);
    let authority = Authority::create(ClusterId(7), &entropy, NOW).unwrap();
    for name in ["", "a:b", "a b", "ü", "a/b", &"x".repeat(129)] {
        let refused = authority.issue_client(name, TenantId(1), &entropy, NOW);
        assert!(matches!(refused, Err(IdentityError::Principal { .. })), "{name:?}");
    }
}

#[test]
fn a_joiner_is_certified_for_the_given_node_only() {
    let entropy = seeded(2);
    let authority = Authority::create(ClusterId(7), &entropy, NOW).unwrap();
    let key = PrivateKey::generate(&entropy);
    let request = key.signing_request(NodeId(666)).unwrap();
    let signed = authority.sign_node_request(&request, NodeId(9), &entropy, NOW).unwrap();
    let credentials =
        Credentials::new(authority.certificate().to_vec(), signed.clone(), key).unwrap();
    assert_eq!(credentials.names().subject, Subject::Node(NodeId(9)));
    let stranger = PrivateKey::generate(&entropy);
    let refused = Credentials::new(authority.certificate().to_vec(), signed, stranger);
    assert_eq!(refused, Err(IdentityError::Mismatch));
}

#[test]
fn a_bent_signing_request_is_refused() {
    let entropy = seeded(2);
    let authority = Authority::create(ClusterId(7), &entropy, NOW).unwrap();
    let key = PrivateKey::generate(&entropy);
    let request = key.signing_request(NodeId(1)).unwrap();
    let mut refused = 0;
    for at in 0..request.len() {
        let mut bent = request.clone();
        bent[at] ^= 0x01;
        match authority.sign_node_request(&bent, NodeId(1), &entropy, NOW) {
            Err(_) => refused += 1,
            // DER leaves bits without meaning; the key must still be the signer's.
            Ok(signed) => {
                let authority = authority.certificate().to_vec();
                Credentials::new(authority, signed, key.clone()).unwrap();
            }
        }
    }
    assert!(refused > request.len() * 9 / 10, "{refused} of {}", request.len());
}

#[test]
fn the_authority_key_opens_only_with_its_cluster_key_and_certificate() {
    let entropy = seeded(3);
    let authority = Authority::create(ClusterId(7), &entropy, NOW).unwrap();
    let other = Authority::create(ClusterId(7), &entropy, NOW).unwrap();
    let key = ClusterKey::generate(&entropy);
    let sealed = authority.seal(&key, &entropy);
    assert!(Authority::open(authority.certificate(), &sealed, &key).is_ok());
    let wrong = ClusterKey::generate(&entropy);
    let refused = Authority::open(authority.certificate(), &sealed, &wrong);
    assert!(matches!(refused, Err(IdentityError::Sealed)));
    let refused = Authority::open(other.certificate(), &sealed, &key);
    assert!(matches!(refused, Err(IdentityError::Sealed)));
    for at in 0..sealed.len() {
        let mut bent = sealed.clone();
        bent[at] ^= 1;
        assert!(Authority::open(authority.certificate(), &bent, &key).is_err());
    }
    assert!(Authority::open(authority.certificate(), &[], &key).is_err());
}

#[test]
fn sealing_twice_never_repeats_a_nonce() {
    let entropy = seeded(3);
    let authority = Authority::create(ClusterId(7), &entropy, NOW).unwrap();
    let key = ClusterKey::generate(&entropy);
    assert_ne!(authority.seal(&key, &entropy)[..13], authority.seal(&key, &entropy)[..13]);
}

#[test]
fn credentials_read_back_from_pem() {
    let entropy = seeded(4);
    let authority = Authority::create(ClusterId(7), &entropy, NOW).unwrap();
    let node = authority.issue_node(NodeId(42), &entropy, NOW).unwrap();
    let read = Credentials::from_pem(&node.certificates_pem(), &node.key_pem()).unwrap();
    assert_eq!(read, node);
    assert!(Credentials::from_pem("", &node.key_pem()).is_err());
    assert!(Credentials::from_pem(&node.certificates_pem(), "nothing").is_err());
}

#[test]
fn a_token_reads_back_and_every_error_says_what_to_do() {
    let token = JoinToken::generate(b"certificate", &seeded(5));
    let text = token.to_string();
    assert_eq!(text.parse::<JoinToken>(), Ok(token.clone()));
    assert_eq!(format!(" {text}\n").parse::<JoinToken>(), Ok(token.clone()));
    assert_eq!("hello".parse::<JoinToken>(), Err(TokenError::Prefix));
    let cut = &text[..text.len() - 1];
    assert_eq!(cut.parse::<JoinToken>(), Err(TokenError::Length { chars: text.len() }));
    let odd = text.replacen(&text[10..11], "!", 1);
    assert_eq!(odd.parse::<JoinToken>(), Err(TokenError::Characters));
    let letter = if &text[20..21] == "A" { "B" } else { "A" };
    let bent = format!("{}{letter}{}", &text[..20], &text[21..]);
    assert_eq!(bent.parse::<JoinToken>(), Err(TokenError::Check));
    assert_eq!(token.hash(), token_hash(&token.secret));
}

#[test]
fn no_secret_is_shown_by_debug() {
    let entropy = seeded(6);
    let authority = Authority::create(ClusterId(7), &entropy, NOW).unwrap();
    let node = authority.issue_node(NodeId(42), &entropy, NOW).unwrap();
    let token = JoinToken::generate(authority.certificate(), &entropy);
    let key = ClusterKey::generate(&entropy);
    let shown = format!("{authority:?} {node:?} {:?} {token:?} {key:?}", node.key());
    for secret in [node.key().to_pkcs8(), &token.secret, &key.0] {
        let listed = format!("{secret:?}");
        assert!(!shown.contains(listed.trim_matches(['[', ']'])));
    }
    assert!(shown.len() < 500, "{shown}");
}

#[test]
fn a_certificate_is_renewed_over_the_same_key_when_a_third_of_its_life_is_left() {
    const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
    let entropy = seeded(9);
    let authority = Authority::create(ClusterId(7), &entropy, NOW).unwrap();
    let old = authority.issue_node(NodeId(1), &entropy, NOW).unwrap();
    assert_eq!(old.ends(), WallTime(NOW.0 + CERTIFICATE_LIFETIME_DAYS * DAY_MS));
    let after = |days: u64| WallTime(NOW.0 + days * DAY_MS);
    assert!(!old.is_due(NOW) && !old.is_due(after(243)));
    assert!(old.is_due(after(244)) && old.is_due(after(400)));

    let renewed = authority.renew(&old, &entropy, after(300)).unwrap();
    assert_eq!((renewed.names(), renewed.key_pem()), (old.names(), old.key_pem()));
    assert_eq!(renewed.ends(), after(300 + CERTIFICATE_LIFETIME_DAYS));
    // Made under a clock that ran ahead, it is good when the clock is right again.
    let ahead = authority.renew(&old, &entropy, after(4_000)).unwrap();
    let begins = |credentials: &Credentials| names::validity(credentials.certificate()).unwrap().0;
    assert_eq!(begins(&ahead), names::validity(authority.certificate()).unwrap().0);
    assert!(begins(&ahead) < NOW);
    let other = Authority::create(ClusterId(7), &entropy, NOW).unwrap();
    assert!(matches!(other.renew(&old, &entropy, NOW), Err(IdentityError::Certificate(_))));
}
