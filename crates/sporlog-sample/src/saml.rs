//! A SAML response, as an audit log keeps it of every sign-in: a few kilobytes of XML. Its
//! signature and certificate are noise.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sporlog_record::hex;

use crate::chance::Dice;
use crate::clock::Moment;
use crate::text::uuid;

/// Who signs in where.
pub(crate) struct Subject<'a> {
    pub(crate) host: &'a str,
    pub(crate) login: String,
    pub(crate) cpr: String,
    pub(crate) name: String,
    pub(crate) person: u128,
}

/// A response issued at `now`; `certificate` is the issuer's, in Base64.
pub(crate) fn response(dice: &mut Dice, subject: &Subject, now: &Moment, certificate: &str) -> String {
    let Subject { host, login, cpr, name, person } = subject;
    let [id, request, assertion] = [(); 3].map(|()| hex(dice.wide().to_be_bytes()));
    let mut noise = [0; 256];
    dice.fill(&mut noise);
    let digest = STANDARD.encode(&noise[..32]);
    dice.fill(&mut noise);
    let signature = STANDARD.encode(noise);
    let (instant, begin) = (now.millis(), now.seconds());
    let attributes = [
        ("dk:gov:saml:attribute:SpecVer", "DK-SAML-2.0"),
        ("dk:gov:saml:attribute:AssuranceLevel", "3"),
        ("dk:gov:saml:attribute:CvrNumberIdentifier", "64942212"),
        ("dk:gov:saml:attribute:CprNumberIdentifier", cpr),
        ("urn:oid:2.5.4.3", name),
        ("urn:oid:0.9.2342.19200300.100.1.1", login),
    ];
    let attributes = attributes.map(|(name, value)| {
        format!(
            r#"      <saml2:Attribute Name="{name}" NameFormat="urn:oasis:names:tc:SAML:2.0:attrname-format:basic">
        <saml2:AttributeValue>{value}</saml2:AttributeValue>
      </saml2:Attribute>
"#
        )
    });
    let (person, attributes) = (uuid(*person), attributes.concat());
    let person = String::from_utf8_lossy(&person);
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<saml2p:Response xmlns:saml2p="urn:oasis:names:tc:SAML:2.0:protocol" Destination="https://{host}.kommune.dk/saml/acs" ID="_{id}" InResponseTo="_{request}" IssueInstant="{instant}Z" Version="2.0">
  <saml2:Issuer xmlns:saml2="urn:oasis:names:tc:SAML:2.0:assertion">https://login.kommune.dk</saml2:Issuer>
  <saml2p:Status>
    <saml2p:StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:Success"/>
  </saml2p:Status>
  <saml2:Assertion xmlns:saml2="urn:oasis:names:tc:SAML:2.0:assertion" ID="_{assertion}" IssueInstant="{instant}Z" Version="2.0">
    <ds:Signature xmlns:ds="http://www.w3.org/2000/09/xmldsig#">
      <ds:SignedInfo>
        <ds:CanonicalizationMethod Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"/>
        <ds:SignatureMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"/>
        <ds:DigestValue>{digest}</ds:DigestValue>
      </ds:SignedInfo>
      <ds:SignatureValue>{signature}</ds:SignatureValue>
      <ds:KeyInfo><ds:X509Data><ds:X509Certificate>{certificate}</ds:X509Certificate></ds:X509Data></ds:KeyInfo>
    </ds:Signature>
    <saml2:Subject>
      <saml2:NameID Format="urn:oasis:names:tc:SAML:1.1:nameid-format:X509SubjectName">C=DK,O=64942212,CN={name},Serial={person}</saml2:NameID>
      <saml2:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer"/>
    </saml2:Subject>
    <saml2:Conditions NotBefore="{begin}Z">
      <saml2:AudienceRestriction>
        <saml2:Audience>https://{host}.kommune.dk</saml2:Audience>
      </saml2:AudienceRestriction>
    </saml2:Conditions>
    <saml2:AttributeStatement>
{attributes}    </saml2:AttributeStatement>
  </saml2:Assertion>
</saml2p:Response>"#
    )
}
