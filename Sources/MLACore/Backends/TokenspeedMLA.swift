/// TOKENSPEED_MLA (vLLM: tokenspeed_mla.TokenspeedMLAPrefillBackend): the tile
/// schedule; creation warms up for the object's dimensions, so that the first
/// run is as fast as the next.
struct TokenspeedMLAContract: NativeContract {
  var warmsUp: Bool { true }
}
