//! Judging the proof of a key on a TLS link (`Prove`), which a shell does before it tells of the link.
//!
//! A signature alone would not do: a relay that a node dialled could hand on the challenge of another relay, and come
//! there with the node's answer. So the node signs what it met as well, and what it believed to dial:
//!
//! 1. **The certificate is ours.** Nobody else can have shown it, for TLS proves its key. The node is here.
//! 2. **Another certificate.** Somebody ends TLS between the node and us: an ingress or a proxy that inspects, which is
//!    accepted (unless channel binding is required) and noted, or a relay that passes on our challenge. The host tells
//!    them apart: the node dialled *us* in the first case, and *that relay* in the second.
//!
//! The host is believed without its port, because what ends TLS for us often listens on another one.

use byway_wire::NodeId;
use byway_wire::key::Purpose;
use byway_wire::relay::Pin;
use byway_wire::relay::control::{Challenge, Prove, Role};

/// What the relay knows of itself and of the connection.
#[derive(Clone, Copy, Debug)]
pub struct Own<'a> {
    /// The public key of its own certificate.
    pub certificate: Pin,
    /// The TLS exporter as seen here; none where TLS always ends before, at an ingress.
    pub exporter: Option<[u8; 32]>,
    /// The hosts by which nodes know it, as [`byway_wire::RelayUrl::host`] spells them.
    pub hosts: &'a [String],
    /// Refuse what does not end here.
    pub require_channel_binding: bool,
}

/// A proof that holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Proved {
    /// Whose key.
    pub node: NodeId,
    /// What it comes as; `Hello` must say the same.
    pub role: Role,
    /// TLS ends somewhere between the node and here.
    pub intercepted: bool,
}

/// Why a proof is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// The signature is not of this key over this challenge and this claim.
    #[error("the proof does not verify")]
    Signature,
    /// TLS ends before the relay, and the node dialled a host that is not the relay.
    // The advice first: a long name is cut.
    #[error(
        "TLS ends before this relay, under a name not its own (if it is one, set public_host): {0}"
    )]
    ForeignHost(String),
    /// TLS ends before the relay, which does not take that.
    #[error("TLS ends before this relay, which requires channel binding")]
    Intercepted,
}

/// Judges the answer to `challenge`.
pub fn judge(challenge: &Challenge, proof: &Prove, own: &Own<'_>) -> Result<Proved, ProofError> {
    let claim = &proof.claim;
    let signed = Prove::signed_bytes(challenge, claim);
    proof
        .node
        .verify(Purpose::LinkProof, &signed, &proof.signature)
        .map_err(|_| ProofError::Signature)?;
    let ours = claim.certificate == own.certificate;
    if !ours && !own.hosts.iter().any(|host| host == claim.host()) {
        return Err(ProofError::ForeignHost(claim.host().to_owned()));
    }
    // Our key with another exporter: what ends TLS before us was given our key.
    let intercepted = !ours || own.exporter != Some(claim.exporter);
    if intercepted && own.require_channel_binding {
        return Err(ProofError::Intercepted);
    }
    Ok(Proved {
        node: proof.node,
        role: claim.role,
        intercepted,
    })
}

#[cfg(test)]
mod tests {
    use byway_wire::SecretKey;
    use byway_wire::relay::control::LinkClaim;

    use super::*;

    const OURS: Pin = Pin([1; 32]);
    const THEIRS: Pin = Pin([2; 32]);
    const EXPORTER: [u8; 32] = [3; 32];

    fn challenge() -> Challenge {
        Challenge {
            relay: "b".into(),
            region: "eu".into(),
            nonce: [4; 32],
        }
    }
    fn claim(dialled: &str, certificate: Pin, exporter: [u8; 32]) -> LinkClaim {
        LinkClaim {
            nonce: [5; 32],
            exporter,
            dialled: dialled.into(),
            certificate,
            role: Role::Agent,
        }
    }
    fn prove(claim: LinkClaim) -> Prove {
        let key = SecretKey::from_bytes(&[6; 32]);
        let signed = Prove::signed_bytes(&challenge(), &claim);
        Prove {
            node: key.node_id(),
            claim,
            signature: key.sign(Purpose::LinkProof, &signed),
        }
    }
    fn judge_at(strict: bool, proof: &Prove) -> Result<(Role, bool), ProofError> {
        judge_with(Some(EXPORTER), strict, proof)
    }
    fn judge_with(
        exporter: Option<[u8; 32]>,
        strict: bool,
        proof: &Prove,
    ) -> Result<(Role, bool), ProofError> {
        let hosts = ["b.example".to_owned(), "2001:db8::b".to_owned()];
        let own = Own {
            certificate: OURS,
            exporter,
            hosts: &hosts,
            require_channel_binding: strict,
        };
        judge(&challenge(), proof, &own).map(|proved| {
            assert_eq!(proved.node, proof.node);
            (proved.role, proved.intercepted)
        })
    }

    #[test]
    fn our_certificate_needs_no_name() {
        let proof = prove(claim("alias.example:443", OURS, EXPORTER));
        assert_eq!(judge_at(true, &proof), Ok((Role::Agent, false)));
    }

    #[test]
    fn another_certificate_under_our_name_is_noted_and_refused_on_demand() {
        for dialled in ["b.example:8443", "[2001:db8::b]:443"] {
            let proof = prove(claim(dialled, THEIRS, [9; 32]));
            assert_eq!(judge_at(false, &proof), Ok((Role::Agent, true)));
            assert_eq!(judge_at(true, &proof), Err(ProofError::Intercepted));
        }
    }

    #[test]
    fn our_certificate_with_another_exporter_is_noted_and_refused_on_demand() {
        let proof = prove(claim("b.example:443", OURS, [9; 32]));
        assert_eq!(judge_at(false, &proof), Ok((Role::Agent, true)));
        assert_eq!(judge_at(true, &proof), Err(ProofError::Intercepted));
    }

    #[test]
    fn without_tls_here_every_link_is_intercepted_whatever_it_claims() {
        for exporter in [EXPORTER, [0; 32]] {
            for certificate in [OURS, THEIRS] {
                let proof = prove(claim("b.example:443", certificate, exporter));
                assert_eq!(judge_with(None, false, &proof), Ok((Role::Agent, true)));
                assert_eq!(judge_with(None, true, &proof), Err(ProofError::Intercepted));
            }
        }
        let proof = prove(claim("a.example:443", THEIRS, EXPORTER));
        assert_eq!(
            judge_with(None, false, &proof),
            Err(ProofError::ForeignHost("a.example".into()))
        );
    }

    #[test]
    fn another_certificate_under_another_name_is_refused_and_says_what_to_configure() {
        // The exporter as ours: whatever it says, the host decides.
        for exporter in [[9; 32], EXPORTER] {
            let proof = prove(claim("a.example:443", THEIRS, exporter));
            let error = ProofError::ForeignHost("a.example".into());
            assert_eq!(judge_at(false, &proof), Err(error.clone()));
            let text = error.to_string();
            assert!(text.contains("a.example") && text.contains("public_host"));
        }
    }

    #[test]
    fn what_was_changed_on_the_way_is_refused() {
        let changes: [fn(&mut LinkClaim); 5] = [
            |c| c.dialled = "b.example:443".into(),
            |c| c.certificate = OURS,
            |c| c.exporter = EXPORTER,
            |c| c.role = Role::Client,
            |c| c.nonce[0] ^= 1,
        ];
        for change in changes {
            let mut proof = prove(claim("a.example:443", THEIRS, [9; 32]));
            change(&mut proof.claim);
            assert_eq!(judge_at(false, &proof), Err(ProofError::Signature));
        }
    }
}
