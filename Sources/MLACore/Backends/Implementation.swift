/// What a backend object is made of.
public enum Implementation: Sendable {
  case builtIn(BuiltInBackend)
  case registered(RegisteredBackend)
}
