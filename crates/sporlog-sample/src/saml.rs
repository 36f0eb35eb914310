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

// The document's pieces, in their order; between them stands what differs.

const BEFORE_DESTINATION: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<saml2p:Response xmlns:saml2p="urn:oasis:names:tc:SAML:2.0:protocol" Destination="https://"#;
const BEFORE_ID: &str = r#".kommune.dk/saml/acs" ID="_"#;
const BEFORE_REQUEST: &str = r#"" InResponseTo="_"#;
const BEFORE_INSTANT: &str = r#"" IssueInstant=""#;
const BEFORE_ASSERTION_ID: &str = r#"Z" Version="2.0">
  <saml2:Issuer xmlns:saml2="urn:oasis:names:tc:SAML:2.0:assertion">https://login.kommune.dk</saml2:Issuer>
  <saml2p:Status>
    <saml2p:StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:Success"/>
  </saml2p:Status>
  <saml2:Assertion xmlns:saml2="urn:oasis:names:tc:SAML:2.0:assertion" ID="_"#;
const BEFORE_DIGEST: &str = r#"Z" Version="2.0">
    <ds:Signature xmlns:ds="http://www.w3.org/2000/09/xmldsig#">
      <ds:SignedInfo>
        <ds:CanonicalizationMethod Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"/>
        <ds:SignatureMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"/>
        <ds:DigestValue>"#;
const BEFORE_SIGNATURE: &str = "</ds:DigestValue>
      </ds:SignedInfo>
      <ds:SignatureValue>";
const BEFORE_CERTIFICATE: &str = "</ds:SignatureValue>
      <ds:KeyInfo><ds:X509Data><ds:X509Certificate>";
const BEFORE_NAME: &str = r#"</ds:X509Certificate></ds:X509Data></ds:KeyInfo>
    </ds:Signature>
    <saml2:Subject>
      <saml2:NameID Format="urn:oasis:names:tc:SAML:1.1:nameid-format:X509SubjectName">C=DK,O=64942212,CN="#;
const BEFORE_SERIAL: &str = ",Serial=";
const BEFORE_CONDITIONS: &str = r#"</saml2:NameID>
      <saml2:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer"/>
    </saml2:Subject>
    <saml2:Conditions NotBefore=""#;
const BEFORE_AUDIENCE: &str = r#"Z">
      <saml2:AudienceRestriction>
        <saml2:Audience>https://"#;
const BEFORE_ATTRIBUTES: &str = ".kommune.dk</saml2:Audience>
      </saml2:AudienceRestriction>
    </saml2:Conditions>
    <saml2:AttributeStatement>
";
const BEFORE_ATTRIBUTE: &str = r#"      <saml2:Attribute Name=""#;
const BEFORE_VALUE: &str = r#"" NameFormat="urn:oasis:names:tc:SAML:2.0:attrname-format:basic">
        <saml2:AttributeValue>"#;
const AFTER_VALUE: &str = "</saml2:AttributeValue>
      </saml2:Attribute>
";
const END: &str = "    </saml2:AttributeStatement>
  </saml2:Assertion>
</saml2p:Response>";

/// Appends a response issued at `now`; `certificate` is the issuer's, in Base64.
pub(crate) fn write(out: &mut Vec<u8>, dice: &mut Dice, subject: &Subject, now: &Moment, certificate: &[u8]) {
    put! { out;
        BEFORE_DESTINATION (subject.host) BEFORE_ID (Hex(&dice.wide().to_be_bytes())) BEFORE_REQUEST
        (Hex(&dice.wide().to_be_bytes())) BEFORE_INSTANT (now.millis()) BEFORE_ASSERTION_ID
        (Hex(&dice.wide().to_be_bytes())) BEFORE_INSTANT (now.millis()) BEFORE_DIGEST
    }
    let mut noise = [0; 256];
    dice.fill(&mut noise);
    base64(out, &noise[..32]);
    put! { out; BEFORE_SIGNATURE }
    dice.fill(&mut noise);
    base64(out, &noise);
    put! { out;
        BEFORE_CERTIFICATE certificate BEFORE_NAME (subject.name) BEFORE_SERIAL (uuid(subject.person))
        BEFORE_CONDITIONS (now.seconds()) BEFORE_AUDIENCE (subject.host) BEFORE_ATTRIBUTES
    }
    for (name, value) in [
        ("dk:gov:saml:attribute:SpecVer", &b"DK-SAML-2.0"[..]),
        ("dk:gov:saml:attribute:AssuranceLevel", b"3"),
        ("dk:gov:saml:attribute:CvrNumberIdentifier", b"64942212"),
        ("dk:gov:saml:attribute:CprNumberIdentifier", subject.cpr),
        ("urn:oid:2.5.4.3", subject.name),
        ("urn:oid:0.9.2342.19200300.100.1.1", subject.login),
    ] {
        put! { out; BEFORE_ATTRIBUTE name BEFORE_VALUE value AFTER_VALUE }
    }
    put! { out; END }
}
