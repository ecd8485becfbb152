import XCTest

@testable import MLACore

/// The choice between a layer's forms, as a value.
final class LayerFormTests: XCTestCase {
  /// Every product and sum costs the same, and packing next to nothing.
  private let plain = FormCost(
    lanes: 1, project: 1, attend: 1, attendLatents: 1, packLatents: 0.001, latentResult: 0.001)

  private func work(_ newTokens: Int, on contextLen: Int, numHeads: Int = 16) -> LayerWork {
    LayerWork(
      newTokens: newTokens, contextLen: contextLen, numHeads: numHeads, qkNopeHeadDim: 128,
      qkRopeHeadDim: 64, vHeadDim: 128, kvLoraRank: 512)
  }

  /// Up-projecting a key costs 131072 products a head, a longer dot product 768
  /// more for each query: 170 of them are worth it.
  func testFewTokensOnALongContextAreAbsorbed() {
    for contextLen in [4096, 65536] {
      XCTAssertEqual(plain.form(of: work(1, on: contextLen)), .absorbed)
      XCTAssertEqual(plain.form(of: work(150, on: contextLen)), .absorbed)
      XCTAssertEqual(plain.form(of: work(190, on: contextLen)), .upProjected)
    }
    XCTAssertEqual(plain.form(of: work(4096, on: 0)), .upProjected)
  }

  func testShortContextsAreUpProjected() {
    XCTAssertEqual(plain.form(of: work(1, on: 255)), .upProjected)
    XCTAssertEqual(plain.form(of: work(1, on: 256)), .absorbed)
  }

  func testMoreNewTokensNeverTurnBackToTheAbsorbedForm() {
    for numHeads in [1, 16, 128] {
      for contextLen in [256, 1000, 10000] {
        var forms: [LayerForm] = []
        for newTokens in 1...400 {
          let form = plain.form(of: work(newTokens, on: contextLen, numHeads: numHeads))
          if form != forms.last { forms.append(form) }
        }
        XCTAssertEqual(forms, [.absorbed, .upProjected], "\(numHeads) heads, \(contextLen)")
      }
    }
  }

  /// A panel's empty lanes cost as much as full ones, once a head where heads have
  /// keys of their own.
  func testEmptyLanesAreCounted() {
    var cost = FormCost(
      lanes: 16, project: 0, attend: 1, attendLatents: 1, packLatents: 0, latentResult: 0)
    XCTAssertEqual(cost.upProjected(work(1, on: 99)), 16 * 16 * 100 * 320)
    XCTAssertEqual(cost.upProjected(work(16, on: 99)), 16 * 16 * 107.5 * 320)
    XCTAssertEqual(cost.absorbed(work(1, on: 99)), 16 * 100 * 1088)
    XCTAssertEqual(cost.absorbed(work(1, on: 99, numHeads: 17)), 32 * 100 * 1088)
    cost = FormCost(
      lanes: 16, project: 1, attend: 0, attendLatents: 0, packLatents: 0, latentResult: 0)
    XCTAssertEqual(cost.upProjected(work(1, on: 99)), 16 * 100 * 131072)
    XCTAssertEqual(cost.absorbed(work(1, on: 99)), 16 * 16 * 131072)
  }

  func testResultsAreCountedWhateverTheContext() {
    let cost = FormCost(
      lanes: 16, project: 0, attend: 0, attendLatents: 0, packLatents: 0, latentResult: 1)
    for contextLen in [0, 5000] {
      XCTAssertEqual(cost.absorbed(work(3, on: contextLen)), 48 * 512)
      XCTAssertEqual(cost.upProjected(work(3, on: contextLen)), 0)
    }
  }

  /// Each chunk of tokens packs its keys anew.
  func testPackingIsCountedForEachChunk() {
    let cost = FormCost(
      lanes: 16, project: 0, attend: 0, attendLatents: 0, packLatents: 1, latentResult: 0)
    XCTAssertEqual(cost.absorbed(work(16, on: 0)), 8.5 * 1088)
    XCTAssertEqual(cost.absorbed(work(17, on: 0)), 2 * 9 * 1088)
    XCTAssertEqual(cost.absorbed(work(4, on: 0, numHeads: 128)), 2 * 2.5 * 1088)
  }
}
