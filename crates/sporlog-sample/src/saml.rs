//! A SAML response, as an audit log keeps it of every sign-in: a few kilobytes of XML. Its
//! signature and certificate are noise.

use crate::chance::Dice;
use crate::clock::Moment;
use crate::text::{Hex, base64, put, uuid};

/// Who signs in where.
pub(crate) struct Subject<'a> {
    pub(crate) host: &'a str,
    pub(crate) login: &'a [u8],
    pub(crate) cpr: &'a [u8],
    pub(crate) name: &'a [u8],
    pub(crate) person: u128,
}

/// Appends a response issued at `now`; `certificate` is the issuer's, in Base64.
pub(crate) fn write(out: &mut Vec<u8>, dice: &mut Dice, subject: &Subject, now: &Moment, certificate: &[u8]) {
    put! { out;
        r#"<?xml version="1.0" encoding="UTF-8"?>
    <saml2p:Response xmlns:saml2p="urn:oasis:names:tc:SAML:2.0:protocol" Destination="https://"# (subject.host) r#".kommune.dk/saml/acs" ID="_"# (Hex(&dice.wide().to_be_bytes())) r#"" InResponseTo="_"#
        (Hex(&dice.wide().to_be_bytes())) r#"" IssueInstant=""# (now.millis()) r#"Z" Version="2.0">
  <saml2:Issuer xmlns:saml2="urn:oasis:names:tc:SAML:2.0:assertion">https://login.kommune.dk</saml2:Issuer>
  <saml2p:Status>
    <saml2p:StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:Success"/>
  </saml2p:Status>
  <saml2:Assertion xmlns:saml2="urn:oasis:names:tc:SAML:2.0:assertion" ID="_"#
        (Hex(&dice.wide().to_be_bytes())) r#"" IssueInstant=""# (now.millis()) r#"Z" Version="2.0">
    <ds:Signature xmlns:ds="http://www.w3.org/2000/09/xmldsig#">
      <ds:SignedInfo>
        <ds:CanonicalizationMethod Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"/>
        <ds:SignatureMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"/>
        <ds:DigestValue>"#
    }
    let mut noise = [0; 256];
    dice.fill(&mut noise);
    base64(out, &noise[..32]);
    put! { out; "</ds:DigestValue>
      </ds:SignedInfo>
      <ds:SignatureValue>" }
    dice.fill(&mut noise);
    base64(out, &noise);
    put! { out;
        "</ds:SignatureValue>
      <ds:KeyInfo><ds:X509Data><ds:X509Certificate>" certificate r#"</ds:X509Certificate></ds:X509Data></ds:KeyInfo>
    </ds:Signature>
    <saml2:Subject>
      <saml2:NameID Format="urn:oasis:names:tc:SAML:1.1:nameid-format:X509SubjectName">C=DK,O=64942212,CN="# (subject.name) ",Serial=" (uuid(subject.person))
        r#"</saml2:NameID>
      <saml2:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer"/>
    </saml2:Subject>
    <saml2:Conditions NotBefore=""# (now.seconds()) r#"Z">
      <saml2:AudienceRestriction>
        <saml2:Audience>https://"# (subject.host) ".kommune.dk</saml2:Audience>
      </saml2:AudienceRestriction>
    </saml2:Conditions>
    <saml2:AttributeStatement>
"
    }
    for (name, value) in [
        ("dk:gov:saml:attribute:SpecVer", &b"DK-SAML-2.0"[..]),
        ("dk:gov:saml:attribute:AssuranceLevel", b"3"),
        ("dk:gov:saml:attribute:CvrNumberIdentifier", b"64942212"),
        ("dk:gov:saml:attribute:CprNumberIdentifier", subject.cpr),
        ("urn:oid:2.5.4.3", subject.name),
        ("urn:oid:0.9.2342.19200300.100.1.1", subject.login),
    ] {
        put! { out; r#"      <saml2:Attribute Name=""# name r#"" NameFormat="urn:oasis:names:tc:SAML:2.0:attrname-format:basic">
        <saml2:AttributeValue>"# value "</saml2:AttributeValue>
      </saml2:Attribute>
" }
    }
    put! { out; "    </saml2:AttributeStatement>
  </saml2:Assertion>
</saml2p:Response>" }
}
